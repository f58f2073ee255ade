"""The owner of one agent process. Standard library only; imports nothing else of cc_executor; nothing imports it but `records`."""
