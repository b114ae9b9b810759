"""Labels of weight spaces, as tests compare them."""

__all__ = ["patterns"]


def patterns(space):
    """Pattern of each tensor by its name."""
    return {view.name: view.pattern for view in space.views}
