package blockhttp

import "os"

// processView says which process a page is of. Of a database that several processes have open each has
// a page, which says nothing of the others: a process that has stopped, or does not come by the
// database, could not say so there either.
type processView struct {
	Host   string `json:"host,omitempty"`
	PID    int    `json:"pid"`
	Shared bool   `json:"shared"` // others may have the store open as well
}

func viewProcess(shared bool) processView {
	host, _ := os.Hostname() // without one the page has the PID alone
	return processView{Host: host, PID: os.Getpid(), Shared: shared}
}
