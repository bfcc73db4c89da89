// Package keyfile reads the files that RSA-2048 private keys are imported from: PEM,
// PKCS#12 (.pfx) and key transfer blobs (.byok). Start with [Parse].
//
// What it returns is acceptable to every vault: RSA, exactly 2048 bits, two prime
// factors, an odd exponent of at least 65537. What it refuses, it refuses with an error
// that says what to do and nothing of the key.
package keyfile
