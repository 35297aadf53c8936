"""The same work done by others, the way their documentation says. They run in a virtual environment of their own."""
