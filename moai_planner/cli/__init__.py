"""The command line: the only room that writes files, prints, or exits. One module a verb."""
