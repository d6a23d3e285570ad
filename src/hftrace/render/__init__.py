"""Views as rich renderables. They return; the command line prints."""
