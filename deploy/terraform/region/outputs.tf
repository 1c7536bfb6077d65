output "hub_url" {
  description = "Of the secret `edgeproxy-hub` of deploy/helm, with the password of the user `edge` in the place of PASSWORD"
  value       = "rediss://edge:PASSWORD@${aws_elasticache_replication_group.hub.primary_endpoint_address}:6379/0"
}

output "database" {
  description = "Host, port and administrator's secret of PostgreSQL; null in a region without the collector"
  value = one([for database in aws_db_instance.database : {
    address = database.address
    port    = database.port
    secret  = database.master_user_secret[0].secret_arn
  }])
}

output "customers_key" {
  description = "Of `encryption: {kms: …}` of the collector; null in a region without it"
  value       = one([for key in aws_kms_key.customers : "aws-kms:${key.arn}"])
}
