//! The question that every contestant is asked, and what it must answer.

/// The response header fields, of which the policy wants to see two.
pub const HEADERS: [(&str, &str); 12] = [
    ("date", "Tue, 17 Nov 2026 10:21:07 GMT"),
    ("server", "vendor-edge/2.4"),
    ("content-type", "application/json; charset=utf-8"),
    ("cache-control", "no-store"),
    ("vary", "accept-encoding"),
    ("x-request-id", "3c140219-cfe9-470e-b241-907877d6fb03"),
    ("via", "1.1 edge-17"),
    ("etag", "\"5f3c-17\""),
    ("age", "0"),
    ("x-frame-options", "DENY"),
    ("x-vendor-state", "degraded"),
    ("retry-after", "30"),
];

/// 1 KiB of JSON, whose error code decides.
pub const BODY: &str = r#"{"Response":{"RequestId":"3c140219-cfe9-470e-b241-907877d6fb03","ServerTime":"2026-11-17T10:21:07.482Z","Region":"eu-central-1","Usage":{"Limit":2500,"Remaining":1187,"ResetSeconds":42,"Window":60},"Order":{"Id":"ord-2026-0017721","Amount":129.95,"Currency":"EUR","Items":[{"Sku":"A-1001","Qty":2,"Price":39.99},{"Sku":"B-2044","Qty":1,"Price":49.97}],"Customer":{"Id":"c-88123","Country":"DE","Segment":"retail","Verified":true,"Since":"2019-04-02"}},"Error":{"Code":"InternalError","Message":"The risk engine could not score this order because an upstream feature store did not answer in time. The order was not recorded. Please send the same request again later.","Retryable":true,"Component":"feature-store","Node":"fs-3-17"},"Trace":[{"Span":"gateway","Ms":1.2},{"Span":"auth","Ms":3.4},{"Span":"score","Ms":812.7},{"Span":"feature-store","Ms":800.1}],"Documentation":"https://docs.example.com/errors/internal-error","Support":"https://support.example.com/tickets/new?request=3c140219-cfe9-470e-b241-907877d6fb03"}}"#;
