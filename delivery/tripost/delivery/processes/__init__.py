"""connections in other processes: the crew of the manager, the courier in each process"""
