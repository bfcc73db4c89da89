//go:build goexperiment.runtimesecret

package secret

import "runtime/secret"

// Erases reports whether Do erases anything in this build.
const Erases = true

// Do calls f, which only computes, and erases what it leaves behind.
func Do(f func()) { secret.Do(f) }

// Inside reports whether Do is anywhere on the call stack.
func Inside() bool { return secret.Enabled() }
