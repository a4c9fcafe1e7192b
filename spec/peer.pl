# Peers that are no Kafka brokers, or bad ones. One process, a port of 127.0.0.1 for each way to
# behave; it prints "NAME PORT" for each, then "ready", and serves until it is killed.
use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;
use Socket qw(SOL_SOCKET SO_LINGER);

# An answer to ApiVersions v3 that offers what any broker offers.
my $versions = pack 'n C (n n n C)3 N C', 0, 1 + 3,
    0, 3, 9, 0,     # Produce
    3, 1, 8, 0,     # Metadata
    18, 0, 3, 0,    # ApiVersions
    0, 0;

# Name => the answer to a request, given its correlation id, API and version, and whether that was
# the last. None: the connection is reset when it is made.
my %behaviours = (
    reset       => undef,
    close       => sub { '', 1 },
    silent      => sub { '' },
    garbage     => sub { "\xde\xad\xbe\xef" x 64 },
    tls         => sub { "\x15\x03\x01\x00\x02\x02\x46" },
    huge        => sub { "\x7f\xff\xff\xff" . "x" x 1024 },
    cut         => sub { pack('N N', 100, $_[0]) . "x" x 10, 1 },
    correlation => sub { frame($_[0] + 1000, $versions) },
    # Some 4 billion elements, in as many bytes as fit here.
    count       => sub { frame($_[0], pack('n C5 N', 0, 0xff, 0xff, 0xff, 0xff, 0x0f, 0)) },
    # A broker until it is asked for something that is not part of the handshake.
    late        => sub {
        my ($correlation_id, $api, $version) = @_;
        return frame($correlation_id, $versions) if $api == 18;
        return frame($correlation_id, pack 'N N', 0, 0) if $api == 3 && $version == 0;
        return frame($correlation_id + 7, pack 'N N', 0, 0);
    },
);

sub frame {
    my ($correlation_id, $body) = @_;
    return pack 'N N a*', 4 + length $body, $correlation_id, $body;
}

$SIG{PIPE} = 'IGNORE';
my $select = IO::Select->new;
my (%listeners, %peers);
for my $name (sort keys %behaviours) {
    my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 64, ReuseAddr => 1)
        or die "cannot listen: $@\n";
    $listeners{$listener} = $behaviours{$name};
    $select->add($listener);
    print "$name ", $listener->sockport, "\n";
}
$| = 1;
print "ready\n";

while (my @ready = $select->can_read) {
    for my $socket (@ready) {
        if (exists $listeners{$socket}) {
            my $peer = $socket->accept or next;
            if (my $behaviour = $listeners{$socket}) {
                $peers{$peer} = { behaviour => $behaviour, input => '' };
                $select->add($peer);
            } else {
                setsockopt $peer, SOL_SOCKET, SO_LINGER, pack 'i i', 1, 0;
                close $peer;
            }
        } elsif (!serve($socket, $peers{$socket})) {
            $select->remove($socket);
            delete $peers{$socket};
            close $socket;
        }
    }
}

# Answers the whole requests that have come. False when the connection is over.
sub serve {
    my ($socket, $peer) = @_;
    sysread $socket, $peer->{input}, 65536, length $peer->{input} or return 0;
    while (length $peer->{input} >= 12) {
        my ($size, $api, $version, $correlation_id) = unpack 'N n n N', $peer->{input};
        last if length $peer->{input} < 4 + $size;
        substr $peer->{input}, 0, 4 + $size, '';
        my ($answer, $last) = $peer->{behaviour}->($correlation_id, $api, $version);
        syswrite $socket, $answer if length $answer;
        return 0 if $last;
    }
    return 1;
}
