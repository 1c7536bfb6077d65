"""edgeproxy.collector.billing.meter_export"""
