"""edgeproxy.collector.directory"""
