# For pages of the documentation: an sshd on this machine that answers as backup1 and backup2.
# `allow COMMAND` makes COMMAND the forced command of the only key. The sshd ends with the shell.
mkdir -p .sshd/bin /run/sshd
chmod 700 .sshd
ssh-keygen -q -t ed25519 -N '' -f .sshd/host
ssh-keygen -q -t ed25519 -N '' -f .sshd/key
allow() {
    printf 'restrict,command="%s" %s\n' "$1" "$(cat .sshd/key.pub)" > .sshd/authorized
}
_port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
# root has no password, so that its account counts as locked unless PAM decides
cat > .sshd/sshd_config <<END
Port $_port
ListenAddress 127.0.0.1
HostKey $PWD/.sshd/host
AuthorizedKeysFile $PWD/.sshd/authorized
PidFile $PWD/.sshd/pid
StrictModes no
UsePAM yes
END
cat > .sshd/ssh_config <<END
Host backup1 backup2
    HostName 127.0.0.1
    Port $_port
    User $(id -un)
    IdentityFile $PWD/.sshd/key
    UserKnownHostsFile $PWD/.sshd/known
    StrictHostKeyChecking accept-new
    LogLevel ERROR
END
printf '#!/bin/sh\nexec /usr/bin/ssh -F %s "$@"\n' "$PWD/.sshd/ssh_config" > .sshd/bin/ssh
chmod 755 .sshd/bin/ssh
PATH=$PWD/.sshd/bin:$PATH
allow false
/usr/sbin/sshd -f "$PWD/.sshd/sshd_config"
trap "kill \$(cat '$PWD/.sshd/pid')" EXIT
