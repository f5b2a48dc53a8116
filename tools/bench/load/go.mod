module restunnel.example/load

go 1.22
