"""the same roles in one process or in many: see docs/processes.md"""
