//go:build goexperiment.runtimesecret

package secret

import "runtime/secret"

// Erases reports whether Do erases anything in this build.
const Erases = true

// Do calls f and erases what it leaves behind.
func Do(f func()) { secret.Do(f) }
