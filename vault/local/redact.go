package local

import "fmt"

// A [Secret] within a struct keeps itself out of prints, but not out of one with a verb
// that does not fit, through a pointer: fmt then follows the pointer and heeds no
// methods. So the structs that have one say themselves how they print.

// Format implements [fmt.Formatter] for all verbs, without the secret.
func (e Escrow) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "local.Escrow{VaultID:%q BackupSecret:%v}", e.VaultID, e.BackupSecret)
}

// Format implements [fmt.Formatter] for all verbs, without the secret.
func (o Options) Format(f fmt.State, _ rune) {
	type plain Options // without this method
	fmt.Fprintf(f, "%+v", plain(o))
}
