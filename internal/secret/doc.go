// Package secret runs code whose temporary memory holds keys.
//
// In a program built with GOEXPERIMENT=runtimesecret on linux/amd64 or
// linux/arm64, Do erases the registers and the stack that f used before it
// returns, and f's heap allocations when the garbage collector finds them
// unreachable. In every other program Do is a plain call, and copies that the
// compiler or the standard library made stay until their memory is reused.
//
// What runs inside Do computes, and nothing else: no I/O, no lock, no call of code
// that somebody else supplies. Go 1.26 crashes when C is entered there
// (https://go.dev/issue/78999), and any of these may end in C: Pebble frees a
// memtable, a vault's client looks up a host's name. Inside tells, so that a test
// can hold it.
package secret
