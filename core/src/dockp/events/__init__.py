"""What happened, told to whoever wants to know: the log of events that all processes on one exec root share."""
