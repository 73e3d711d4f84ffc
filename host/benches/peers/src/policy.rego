package retry

transient := {408, 409, 429, 500, 502, 503, 504}

internal := {"InternalError", "RequestLimitExceeded"}

success if {
	input.status >= 200
	input.status < 300
}

code := input.body.Response.Error.Code

decision := ["retry", null, "server failure"] if {
	not success
	input.status in transient
} else := ["dead-letter", null, "an answer that another attempt will not change"] if {
	not success
} else := ["retry-destination", 600, "vendor in maintenance"] if {
	input.headers["x-vendor-state"] == "maintenance"
} else := ["accept", null, "success"] if {
	not code
} else := ["dead-letter", null, "the vendor refuses the request"] if {
	not code in internal
} else := ["retry", null, "the vendor's internal error"] if {
	not input.headers["retry-after"]
} else := ["retry", to_number(input.headers["retry-after"]), "the vendor's internal error, which names a delay"]
