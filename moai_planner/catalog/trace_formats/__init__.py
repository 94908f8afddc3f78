"""One small module a trace format: `NAME`, `recognises(head)` and `read(source) -> Trace`."""
