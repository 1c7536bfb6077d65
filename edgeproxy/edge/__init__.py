"""edgeproxy.edge"""
