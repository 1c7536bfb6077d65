"""Personal data: the map of where it lies, the erasure of customers, and the export of what there is of one."""
