# The buckets of one residency, each with a copy in another AWS region of it, that S3 makes. It was never applied: no AWS
# account was at hand. docs/operations/terraform.md says what was checked.

locals {
  buckets = {
    # `edgeproxy export --parquet`: files are never changed, and an exporter that misses one stops. So none is deleted here.
    exports = { expires_days = null, is_locked = false }
    backups = { expires_days = var.backup_days, is_locked = false }
    # Exports of the audit log: object lock keeps them from everybody.
    audit = { expires_days = var.audit_years * 366 + 1, is_locked = true }
  }
  locked = { for name, bucket in local.buckets : name => bucket if bucket.is_locked }
}

data "aws_caller_identity" "current" {}

data "aws_iam_policy_document" "key" {
  statement {
    sid       = "Account"
    actions   = ["kms:*"]
    resources = ["*"]
    principals {
      type        = "AWS"
      identifiers = ["arn:aws:iam::${data.aws_caller_identity.current.account_id}:root"]
    }
  }
}

resource "aws_kms_key" "source" {
  description             = "edgeproxy: exports and backups"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.key.json
}

resource "aws_kms_key" "copy" {
  provider                = aws.copy
  description             = "edgeproxy: copies of exports and backups"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.key.json
}

resource "aws_s3_bucket" "source" {
  for_each            = local.buckets
  bucket              = "${var.name}-${each.key}"
  object_lock_enabled = each.value.is_locked
}

resource "aws_s3_bucket" "copy" {
  provider            = aws.copy
  for_each            = local.buckets
  bucket              = "${var.name}-${each.key}-copy"
  object_lock_enabled = each.value.is_locked
}

resource "aws_s3_bucket_versioning" "source" {
  for_each = aws_s3_bucket.source
  bucket   = each.value.id
  versioning_configuration { status = "Enabled" }
}

resource "aws_s3_bucket_versioning" "copy" {
  provider = aws.copy
  for_each = aws_s3_bucket.copy
  bucket   = each.value.id
  versioning_configuration { status = "Enabled" }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "source" {
  for_each = aws_s3_bucket.source
  bucket   = each.value.id
  rule {
    bucket_key_enabled = true
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.source.arn
    }
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "copy" {
  provider = aws.copy
  for_each = aws_s3_bucket.copy
  bucket   = each.value.id
  rule {
    bucket_key_enabled = true
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.copy.arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "source" {
  for_each                = aws_s3_bucket.source
  bucket                  = each.value.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_public_access_block" "copy" {
  provider                = aws.copy
  for_each                = aws_s3_bucket.copy
  bucket                  = each.value.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

data "aws_iam_policy_document" "bucket" {
  for_each = merge(
    { for name, bucket in aws_s3_bucket.source : name => bucket.arn },
    { for name, bucket in aws_s3_bucket.copy : "${name}-copy" => bucket.arn },
  )
  statement {
    sid       = "OnlyTLS"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [each.value, "${each.value}/*"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "source" {
  for_each = aws_s3_bucket.source
  bucket   = each.value.id
  policy   = data.aws_iam_policy_document.bucket[each.key].json
}

resource "aws_s3_bucket_policy" "copy" {
  provider = aws.copy
  for_each = aws_s3_bucket.copy
  bucket   = each.value.id
  policy   = data.aws_iam_policy_document.bucket["${each.key}-copy"].json
}

resource "aws_s3_bucket_object_lock_configuration" "source" {
  for_each = local.locked
  bucket   = aws_s3_bucket.source[each.key].id
  rule {
    default_retention {
      mode  = "COMPLIANCE"
      years = var.audit_years
    }
  }
}

resource "aws_s3_bucket_object_lock_configuration" "copy" {
  provider = aws.copy
  for_each = local.locked
  bucket   = aws_s3_bucket.copy[each.key].id
  rule {
    default_retention {
      mode  = "COMPLIANCE"
      years = var.audit_years
    }
  }
}

# A lifecycle is not replicated: each side has its own.
resource "aws_s3_bucket_lifecycle_configuration" "source" {
  for_each   = aws_s3_bucket.source
  bucket     = each.value.id
  depends_on = [aws_s3_bucket_versioning.source]

  rule {
    id     = "age"
    status = "Enabled"
    filter {}
    dynamic "transition" { # Not where a file is deleted before.
      for_each = coalesce(local.buckets[each.key].expires_days, var.hot_days + 1) > var.hot_days ? [var.hot_days] : []
      content {
        days          = transition.value
        storage_class = "GLACIER_IR"
      }
    }
    dynamic "expiration" {
      for_each = local.buckets[each.key].expires_days == null ? [] : [local.buckets[each.key].expires_days]
      content {
        days = expiration.value
      }
    }
    noncurrent_version_expiration { noncurrent_days = 30 }
    abort_incomplete_multipart_upload { days_after_initiation = 7 }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "copy" {
  provider   = aws.copy
  for_each   = aws_s3_bucket.copy
  bucket     = each.value.id
  depends_on = [aws_s3_bucket_versioning.copy]

  rule {
    id     = "age"
    status = "Enabled"
    filter {}
    dynamic "transition" { # Not where a file is deleted before.
      for_each = coalesce(local.buckets[each.key].expires_days, var.hot_days + 1) > var.hot_days ? [var.hot_days] : []
      content {
        days          = transition.value
        storage_class = "GLACIER_IR"
      }
    }
    dynamic "expiration" {
      for_each = local.buckets[each.key].expires_days == null ? [] : [local.buckets[each.key].expires_days]
      content {
        days = expiration.value
      }
    }
    noncurrent_version_expiration { noncurrent_days = 30 }
    abort_incomplete_multipart_upload { days_after_initiation = 7 }
  }
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["s3.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

data "aws_iam_policy_document" "replication" {
  statement {
    actions   = ["s3:GetReplicationConfiguration", "s3:ListBucket"]
    resources = [for bucket in aws_s3_bucket.source : bucket.arn]
  }
  statement {
    actions = [
      "s3:GetObjectRetention", "s3:GetObjectLegalHold", "s3:GetObjectVersionAcl", "s3:GetObjectVersionForReplication",
      "s3:GetObjectVersionTagging",
    ]
    resources = [for bucket in aws_s3_bucket.source : "${bucket.arn}/*"]
  }
  statement {
    actions   = ["s3:ReplicateObject", "s3:ReplicateTags"]
    resources = [for bucket in aws_s3_bucket.copy : "${bucket.arn}/*"]
  }
  statement {
    actions   = ["kms:Decrypt"]
    resources = [aws_kms_key.source.arn]
  }
  statement {
    actions   = ["kms:Encrypt"]
    resources = [aws_kms_key.copy.arn]
  }
}

resource "aws_iam_role" "replication" {
  name               = "${var.name}-replication"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy" "replication" {
  name   = "replication"
  role   = aws_iam_role.replication.id
  policy = data.aws_iam_policy_document.replication.json
}

resource "aws_s3_bucket_replication_configuration" "source" {
  for_each   = aws_s3_bucket.source
  bucket     = each.value.id
  role       = aws_iam_role.replication.arn
  depends_on = [aws_s3_bucket_versioning.source, aws_s3_bucket_versioning.copy, aws_iam_role_policy.replication]

  rule {
    id     = "all"
    status = "Enabled"
    filter {}
    # Whoever deletes something here has not deleted the copy.
    delete_marker_replication { status = "Disabled" }
    source_selection_criteria {
      sse_kms_encrypted_objects { status = "Enabled" }
    }
    destination {
      bucket        = aws_s3_bucket.copy[each.key].arn
      storage_class = "STANDARD"
      encryption_configuration { replica_kms_key_id = aws_kms_key.copy.arn }
      replication_time {
        status = "Enabled"
        time { minutes = 15 }
      }
      metrics {
        status = "Enabled"
        event_threshold { minutes = 15 }
      }
    }
  }
}

# Who exports and makes backups: it adds and reads, and deletes nothing.
data "aws_iam_policy_document" "jobs" {
  statement {
    actions   = ["s3:ListBucket"]
    resources = [for bucket in aws_s3_bucket.source : bucket.arn]
  }
  statement {
    actions   = ["s3:GetObject", "s3:PutObject"]
    resources = [for bucket in aws_s3_bucket.source : "${bucket.arn}/*"]
  }
  statement {
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [aws_kms_key.source.arn]
  }
}

resource "aws_iam_role_policy" "jobs" {
  name   = "${var.name}-storage"
  role   = var.jobs_role
  policy = data.aws_iam_policy_document.jobs.json
}
