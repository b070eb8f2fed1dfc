"""the running gateway, asked and told from a shell"""
