output "buckets" {
  description = "The buckets by what they are for: `edgeproxy export --parquet s3://BUCKET/edgeproxy`, FULL_TO of deploy/job"
  value       = { for name, bucket in aws_s3_bucket.source : name => bucket.id }
}

output "copies" {
  description = "Their copies, which S3 writes"
  value       = { for name, bucket in aws_s3_bucket.copy : name => bucket.id }
}
