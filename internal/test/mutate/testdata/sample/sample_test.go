package sample

import "testing"

func TestDestroy(t *testing.T) {
	told := false
	(&Key{b: []byte{1}}).Destroy(&told)
	if !told {
		t.Error("it is told")
	}
}

func TestAdmit(t *testing.T) {
	if Admit(0) != nil || Admit(-1) == nil || Admit(100) == nil {
		t.Error("wrong")
	}
}
