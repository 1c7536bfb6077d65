variable "name" {
  description = "What the names of buckets and keys begin with; buckets of all of AWS share their names"
  type        = string
  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{2,40}$", var.name))
    error_message = "Lower-case letters, digits and hyphens."
  }
}

variable "hot_days" {
  description = "Days after which a file becomes cold: cheaper to keep, dearer to read, read at once all the same"
  type        = number
  default     = 90
}

variable "backup_days" {
  description = "Days after which a backup is deleted; what was erased is in backups for as long"
  type        = number
  default     = 35
}

variable "audit_years" {
  description = "Years for which nobody, not even the account's root, deletes an export of the audit log"
  type        = number
  default     = 10
}

variable "jobs_role" {
  description = "Name of the IAM role of the host or pod that exports and makes backups"
  type        = string
}
