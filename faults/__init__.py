"""A campaign of faults: bad inputs, damaged files and kills, and what the project makes of each."""
