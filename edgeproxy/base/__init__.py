"""edgeproxy.base"""
