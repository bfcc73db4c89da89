// Package secret runs code whose temporary memory holds keys.
//
// In a program built with GOEXPERIMENT=runtimesecret on linux/amd64 or
// linux/arm64, Do erases the registers and the stack that f used before it
// returns, and f's heap allocations when the garbage collector finds them
// unreachable. In every other program Do is a plain call, and copies that the
// compiler or the standard library made stay until their memory is reused.
package secret
