"use strict";
(function (status, headers, body) {
    if (status < 200 || status > 299) {
        switch (status) {
            case 408: case 409: case 429: case 500: case 502: case 503: case 504:
                return ["retry", null, "server failure"];
        }
        return ["dead-letter", null, "an answer that another attempt will not change"];
    }
    if (headers["x-vendor-state"] === "maintenance") {
        return ["retry-destination", 600, "vendor in maintenance"];
    }
    const code = CODE;
    if (code == null) {
        return ["accept", null, "success"];
    }
    if (code === "InternalError" || code === "RequestLimitExceeded") {
        const after = parseInt(headers["retry-after"], 10);
        return isNaN(after)
            ? ["retry", null, "the vendor's internal error"]
            : ["retry", after, "the vendor's internal error, which names a delay"];
    }
    return ["dead-letter", null, "the vendor refuses the request"];
})
