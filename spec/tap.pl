# A wire tap: listens on a port of 127.0.0.1 and passes each connection on to the Kafka broker whose
# env file it was given (see dev/kafka.sh), which may start later. Without a file, or while there is
# no broker, it accepts and closes. It prints "port PORT" first, then a line for each thing it sees:
#   connect
#   request API VERSION CLIENT-ID
#   produce ACKS TIMEOUT-MS      the head of a Produce request, after its `request` line
# It changes nothing but the words "corrupt me", in which it flips bits: the broker sees a bad CRC.
use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;

use constant PRODUCE => 0;

my ($env_file) = @ARGV;
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 64, ReuseAddr => 1)
    or die "cannot listen: $@\n";
my $select = IO::Select->new($listener);
# Each end of a connection => the other, and what has come from clients and is not a whole request.
my (%other, %input);

$SIG{PIPE} = 'IGNORE';
$| = 1;
print 'port ', $listener->sockport, "\n";

while (my @ready = $select->can_read) {
    for my $socket (@ready) {
        if ($socket == $listener) {
            accept_one();
        } elsif ($other{$socket}) {
            pass_on($socket) or hang_up($socket);
        }
    }
}

sub accept_one {
    my $client = $listener->accept or return;
    print "connect\n";
    my $broker = connect_broker() or return close $client;
    ($other{$client}, $other{$broker}) = ($broker, $client);
    $input{$client} = '';
    $select->add($client, $broker);
}

sub connect_broker {
    open my $file, '<', $env_file // return or return;
    my ($address) = map { /^BOOTSTRAP=(.*)/ ? $1 : () } <$file>;
    return $address && IO::Socket::INET->new(PeerAddr => $address);
}

sub pass_on {
    my ($socket) = @_;
    sysread $socket, my $bytes, 65536 or return 0;
    if (defined $input{$socket}) {
        $input{$socket} .= $bytes;
        tell_requests($socket);
        $bytes =~ s/corrupt me/corrupt ME/g;
    }
    while (length $bytes) {
        my $written = syswrite $other{$socket}, $bytes or return 0;
        substr $bytes, 0, $written, '';
    }
    return 1;
}

sub hang_up {
    for my $end ($other{$_[0]}, $_[0]) {
        $select->remove($end);
        delete $other{$end};
        delete $input{$end};
        close $end;
    }
}

sub tell_requests {
    my ($socket) = @_;
    while (length $input{$socket} >= 4) {
        my $size = unpack 'N', $input{$socket};
        last if length $input{$socket} < 4 + $size;
        my $request = substr $input{$socket}, 0, 4 + $size, '';
        my ($api, $version, $client_id, $rest) = unpack 'x4 n n x4 n/a a*', $request;
        print "request $api $version $client_id\n";
        # Two bytes come first in all versions from 3: a null transactional id, and, where that takes
        # one byte only, the header's empty list of tagged fields.
        printf "produce %d %d\n", unpack 'x2 s> N', $rest if $api == PRODUCE;
    }
}
