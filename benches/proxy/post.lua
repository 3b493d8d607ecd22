wrk.method = "POST"
wrk.body = string.rep("x", 8192)
wrk.headers["content-type"] = "application/json"
wrk.headers["x-api-key"] = "some-key"
