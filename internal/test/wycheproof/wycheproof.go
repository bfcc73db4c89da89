// Package wycheproof has the test vectors of Project Wycheproof that this project's tests
// run. README.md says where they come from, in which version, and how to take newer ones.
package wycheproof

import "embed"

//go:embed testdata
var files embed.FS

// Read returns one of the project's files, such as "aes_gcm_test.json".
func Read(name string) ([]byte, error) { return files.ReadFile("testdata/" + name) }
