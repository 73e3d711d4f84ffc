local transient = {
    [408] = true, [409] = true, [429] = true, [500] = true, [502] = true, [503] = true, [504] = true,
}

return function(status, headers, body)
    if status < 200 or status > 299 then
        if transient[status] then
            return "retry", nil, "server failure"
        end
        return "dead-letter", nil, "an answer that another attempt will not change"
    end
    if headers["x-vendor-state"] == "maintenance" then
        return "retry-destination", 600, "vendor in maintenance"
    end
    local code = CODE
    if not code then
        return "accept", nil, "success"
    end
    if code == "InternalError" or code == "RequestLimitExceeded" then
        local after = tonumber(headers["retry-after"])
        if after then
            return "retry", after, "the vendor's internal error, which names a delay"
        end
        return "retry", nil, "the vendor's internal error"
    end
    return "dead-letter", nil, "the vendor refuses the request"
end
