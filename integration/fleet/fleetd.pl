#!/usr/bin/perl
# Runs the machines of a fleet, as the first process of the namespaces that hosts.sh was started in:
#
#   fleetd.pl FOLDER DISK-SIZE PERSONA,PERSONA,…
#
# A machine is an sshd that is process 1 of a network, mount, pid, uts, ipc and time namespace, on a disk of its own,
# with its own address, host key, name, boot id and uptime. reboot(2) in a machine really ends it: the kernel tells us
# by a signal whether it is to start again (SIGHUP) or to stay off (SIGINT). Needs no more than perl-base.
use strict; use warnings;
use POSIX (); use Socket; use Time::HiRes qw(time sleep);

my ($folder, $disk_size, $personas) = @ARGV;
my @personas = split /,/, $personas;
my ($net, $first) = ('10.77', 11);

my %calls = (
    x86_64  => { mount => 165, umount => 166, unshare => 272, setns => 308, clone => 56, pivot_root => 155,
                 sethostname => 170, prctl => 157 },
    aarch64 => { mount => 40, umount => 39, unshare => 97, setns => 268, clone => 220, pivot_root => 41,
                 sethostname => 161, prctl => 167 },
);
my $architecture = (POSIX::uname())[4];
my $calls = $calls{$architecture} or die "machines are not made on $architecture\n";
use constant {
    NEWTIME => 0x80, NEWNS => 0x20000, NEWUTS => 0x4000000, NEWIPC => 0x8000000, NEWPID => 0x20000000,
    NEWNET => 0x40000000, SIGCHLD => 17,
    RDONLY => 1, REMOUNT => 32, BIND => 4096, DETACH => 2, CAPBSET_DROP => 24,
};

# With copies of its arguments: a literal cannot be handed to the kernel.
sub call { my ($name, @arguments) = @_; syscall($calls->{$name}, @arguments) }
sub must { call(@_) == 0 or die "$_[0]: $!\n" }
sub mount { my ($from, $to, $type, $flags, $data) = @_;
    call('mount', $from, $to, $type, $flags, $data) == 0 or die "mounting $from on $to: $!\n" }
sub bind_read_only { my ($path) = @_;
    mount($path, $path, 'none', BIND, 0); mount('none', $path, 'none', BIND | REMOUNT | RDONLY, 0) }
sub text { open my $file, '<', $_[0] or return ''; local $/; my $text = <$file> // ''; $text =~ s/\n\z//; $text }
# All of it at once: others read it at any time.
sub put { my ($path, $text) = @_;
    open my $file, '>', "$path.new" or die "$path: $!\n"; print $file "$text\n"; close $file;
    rename "$path.new", $path or die "$path: $!\n" }
sub note { open my $log, '>>', 'events' or return; printf $log "%.3f %s\n", time, join ' ', @_ }
sub address { my $number = $_[0] + $first; sprintf '%s.%d.%d', $net, $number / 250, $number % 250 }

chdir "$folder/mem" or die "$folder/mem: $!\n";
open my $own_time, '<', '/proc/self/ns/time';
open my $own_net, '<', '/proc/self/ns/net' or die "the network namespace: $!\n";
socket my $control, AF_INET, SOCK_DGRAM, 0 or die "a socket: $!\n";

# The cable of a machine, put in or pulled out.
sub cable { my ($machine, $in) = @_;
    my $request = pack 'a16 x24', "fv$machine->{number}";
    ioctl $control, 0x8913, $request or return;
    my $flags = unpack 'x16 s', $request;
    $flags = $in ? $flags | 1 : $flags & ~1;
    $request = pack 'a16 s x22', "fv$machine->{number}", $flags;
    ioctl $control, 0x8914, $request }

sub in_child { my ($work) = @_;
    defined(my $pid = fork) or die "fork: $!\n";
    return $pid if $pid;
    my $done = eval { $work->(); 1 };
    print STDERR $@ unless $done;
    POSIX::_exit($done ? 0 : 77) }

# Machines without anything in them: a disk, a host key, an id, a network with a cable to the bridge.
my @machines = map { { number => $_, name => "h$_", persona => $personas[$_] } } 0 .. $#personas;
my @makers;
for my $machine (@machines) {
    my $path = "disk/$machine->{name}";
    mkdir $path; mount('fleet', $path, 'tmpfs', 0, "size=$disk_size,mode=755");
    mkdir "$path/$_", 0755 for qw(upper work upper/etc upper/etc/ssh);
    my $own = "own/$machine->{name}";
    mkdir $own; mkdir "$own/behave"; chmod 0777, "$own/behave";
    for my $file ('log', 'lock') { open my $made, '>', "$own/$file"; chmod 0666, "$own/$file" }
    my $id = text('/proc/sys/kernel/random/uuid'); $id =~ tr/-//d;
    put("$path/upper/etc/machine-id", $id);
    push @makers, in_child(sub {
        exec 'ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', $machine->{name},
            '-f', "$path/upper/etc/ssh/fleet_host_key" });
    waitpid shift @makers, 0 if @makers >= 8;
}
waitpid $_, 0 for @makers;
my $batch = '';
for my $machine (@machines) {
    must('unshare', NEWNET);
    open my $there, '<', '/proc/self/ns/net' or die "a network namespace: $!\n";
    $machine->{net} = $there;
    put("meta/$machine->{name}.net", "/proc/1/fd/" . fileno $there);
    must('setns', fileno $own_net, NEWNET);
    $batch .= "link add fv$machine->{number} type veth peer name eth0 netns /proc/1/fd/" . fileno($there) . "\n"
        . "link set fv$machine->{number} master fleet up\n";
}
sub ip { my ($batch) = @_;
    open my $ip, '|-', 'ip', '-batch', '-' or die "ip: $!\n"; print $ip $batch; close $ip or die "ip has failed\n" }
ip($batch);
for my $machine (@machines) {
    must('setns', fileno $machine->{net}, NEWNET);
    for my $which ('all', 'default') {
        open my $switch, '>', "/proc/sys/net/ipv6/conf/$which/disable_ipv6" or next; print $switch "1\n" }
    my $address = address($machine->{number});
    ip("link set lo up\naddr add $address/16 dev eth0\nlink set eth0 up\n"
        . "neigh add $net.0.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent\nroute add default via $net.0.1\n");
}
must('setns', fileno $own_net, NEWNET);

my %running;
sub boot { my ($machine) = @_;
    my $name = $machine->{name};
    my $boot = text('/proc/sys/kernel/random/uuid');
    put("meta/$name.boot_id", $boot);
    # Its uptime begins now, where the kernel knows how to.
    if (call('unshare', NEWTIME) == 0 && open my $offsets, '>', '/proc/self/timens_offsets') {
        my ($up) = text('/proc/uptime') =~ /^(\d+)/;
        syswrite $offsets, sprintf "monotonic -%d 0\nboottime -%d 0\n", $up - 1, $up - 1;
    }
    my $pid = syscall($calls->{clone}, NEWNS | NEWPID | NEWUTS | NEWIPC | SIGCHLD, 0, 0, 0, 0);
    die "clone: $!\n" if $pid < 0;
    if ($pid == 0) {
        eval { machine($machine, $boot) };
        print STDERR "$name: $@";
        POSIX::_exit(77);
    }
    call('setns', fileno $own_time, NEWTIME) if $own_time;
    cable($machine, 1);
    $running{$pid} = $machine; $machine->{pid} = $pid;
    put("meta/$name.pid", $pid);
    note($name, 'boots', $boot);
}

# What a machine does until its sshd runs. Does not return.
sub machine { my ($machine, $boot) = @_;
    my $name = $machine->{name};
    must('setns', fileno $machine->{net}, NEWNET);
    must('sethostname', $name, length $name);
    my ($root, $disk) = ('root', "disk/$name");
    mount('/dev/vda1', $root, 'overlay', 0, "lowerdir=layers/$machine->{persona}:layers/common:/,"
        . "upperdir=$disk/upper,workdir=$disk/work,index=off,metacopy=off");
    mount('proc', "$root/proc", 'proc', 0, 0);
    mount('sysfs', "$root/sys", 'sysfs', RDONLY, 0);
    mount('devpts', "$root/dev/pts", 'devpts', 0, 'newinstance,ptmxmode=0666,mode=620');
    mount('tmpfs', "$root/run", 'tmpfs', 0, 'size=16m,mode=755');
    mount('tmpfs', "$root/tmp", 'tmpfs', 0, 'size=16m,mode=1777');
    mkdir "$root/run/fleet"; mount("own/$name", "$root/run/fleet", 'none', BIND, 0);
    # What belongs to the real machine: settings of its kernel, and its end.
    bind_read_only("$root/proc/sys/$_") for 'kernel', 'vm', 'fs';
    mount("$root/dev/null", "$root/proc/sysrq-trigger", "none", BIND, 0) if -e "$root/proc/sysrq-trigger";
    put("$root/run/boot_id", $boot);
    mount("$root/run/boot_id", "$root/proc/sys/kernel/random/boot_id", 'none', BIND, 0);
    for my $file ('cpuinfo', 'meminfo') {
        mount("$root/etc/fleet/$file", "$root/proc/$file", 'none', BIND, 0) if -f "$root/etc/fleet/$file";
    }
    chdir $root; must('pivot_root', '.', '.'); must('umount', '.', DETACH); chdir '/';
    open STDIN, '<', '/dev/null'; open STDOUT, '>>', '/run/fleet/sshd.log'; open STDERR, '>&', \*STDOUT;
    %ENV = (PATH => '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin');
    system '/bin/sh', '/usr/lib/fleet/boot';
    bind_read_only('/usr') if -f '/usr/lib/fleet/image';
    # Modules, hardware, the clock, device nodes: those of the real machine.
    call('prctl', CAPBSET_DROP, $_, 0, 0, 0) for 16, 17, 25, 27;
    $^F = 2;
    exec '/usr/sbin/sshd', '-D', '-e', '-f', '/etc/ssh/sshd_config';
    die "sshd: $!\n";
}

sub answers { my ($machine) = @_;
    $machine->{pid} && text("/proc/$machine->{pid}/net/tcp") =~ /:0016 00000000:0000 0A / }

# Starts again what has ended, unless it is to stay off.
sub look_after {
    while ((my $pid = waitpid -1, POSIX::WNOHANG()) > 0) {
        my $status = $?;
        my $machine = delete $running{$pid} or next;
        my $name = $machine->{name};
        cable($machine, 0);
        delete $machine->{pid};
        unlink "meta/$name.pid";
        note($name, 'ends', 'signal', $status & 127, 'status', $status >> 8);
        next if ($status & 127) == 2 || $status >> 8 == 77 || -e "meta/$name.off";
        my $delay = text("meta/$name.delay");
        $machine->{due} = time + ($delay eq '' ? 1 : $delay);
    }
    for my $machine (@machines) {
        my $on = -e "meta/$machine->{name}.on";
        next unless $on || ($machine->{due} && time >= $machine->{due});
        unlink "meta/$machine->{name}.on", "meta/$machine->{name}.off" if $on;
        delete $machine->{due};
        boot($machine) unless $machine->{pid};
    }
}

my $stop;
$SIG{TERM} = $SIG{INT} = sub { $stop = 1 };
$SIG{CHLD} = $SIG{USR1} = sub { };
boot($_) for @machines;
my @awaited = @machines;
while (@awaited) {
    sleep 0.02;
    look_after();
    die "$awaited[0]{name} has ended: " . text("own/$awaited[0]{name}/sshd.log") . "\n" unless $awaited[0]{pid};
    shift @awaited while @awaited && answers($awaited[0]);
}
$| = 1;
print "up\n";
until ($stop) { sleep 0.25; look_after() }
