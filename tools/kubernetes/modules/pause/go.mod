module openclaw.io/tools/pause

go 1.25.0
