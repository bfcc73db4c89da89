package main

import (
	"syscall"
	"time"
)

// rusageThread is RUSAGE_THREAD of getrusage(2).
const rusageThread = 1

// threadTime returns the processor time that this thread has used, which the goroutine is locked
// to. Unlike the time that passes, it does not count what other processes of the machine take.
func threadTime() time.Duration {
	return usage(rusageThread)
}

// processTime returns that of all threads of this process.
func processTime() time.Duration { return usage(syscall.RUSAGE_SELF) }

func usage(who int) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(who, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
