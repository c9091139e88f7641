package mount

func readChild(string) {}
