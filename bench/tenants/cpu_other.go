//go:build !linux

package main

import "time"

// threadTime returns 0: the processor time of a thread is not known here.
func threadTime() time.Duration { return 0 }

// processTime returns 0: that of the process is not known here either.
func processTime() time.Duration { return 0 }
