//go:build !unix

package bench

import "time"

// processorTime is the time that passes, where the system is not asked for another.
func processorTime() time.Duration { return time.Duration(time.Now().UnixNano()) }
