"""edgeproxy.wire"""
