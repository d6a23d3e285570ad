"""What a program uses: the classes behind the public names, which may use every part but the command line."""
