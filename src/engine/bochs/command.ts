import { endWithParent, type QemuSpec, qmp, sandbox, type UserNetwork, userNetwork } from '../qemu/argv.ts'
import { type BochsFiles, bochsFiles, switchSocket } from './files.ts'

/** The programs, on the machine that they run on: starts of commands. */
export interface BochsPrograms {
  bochs: readonly string[]
  /** Of vde2: joins Bochs and QEMU by the one kind of network that both know and that needs no rights. */
  switch: readonly string[]
  /** Of util-linux. */
  setpriv: readonly string[]
  qemu: readonly string[]
}

/** What decides the command. */
export type BochsSpec = Pick<QemuSpec, 'name' | 'files' | 'endWithParent'> & {
  network: UserNetwork
  dir: string
  socketDir: string
}

/**
 * The whole engine: Bochs, and as its children a QEMU without a machine, whose user-mode network and QMP are those of a
 * guest on QEMU, and a switch between the two: Bochs has one connection to such a switch and no more. The children end
 * with Bochs; with `endWithParent`, Bochs ends with whoever starts it.
 */
export function bochsCommand(spec: BochsSpec, programs: BochsPrograms): string[] {
  const files = bochsFiles(spec.dir, spec.socketDir)
  const ends = [...programs.setpriv, '--pdeathsig', 'KILL', '--no-new-privs']
  const wire = [...ends, ...programs.switch, '--sock', files.switchDir]
  const network = [...programs.qemu, ...networkArguments(spec, files)]
  const bochs = [...programs.bochs, '-q', '-f', files.configuration]
  return [
    ...['sh', '-c', startScript, 'sh', spec.socketDir],
    ...[String(wire.length), switchSocket, ...wire],
    ...[String(network.length), spec.files.qmpSocket, ...network],
    ...['0', ...(spec.endWithParent ? ends : []), ...bochs],
  ]
}

function networkArguments({ name, network, files: own }: BochsSpec, { switchDir }: BochsFiles): string[] {
  return [
    ...['-name', `nestvm-${name},debug-threads=on`, '-nodefaults', '-no-user-config', '-display', 'none'],
    ...['-machine', 'none', ...userNetwork(network)],
    ...['-netdev', `vde,id=wire,sock=${switchDir.replaceAll(',', ',,')}`],
    ...['net', 'wire'].flatMap((id) => ['-netdev', `hubport,id=${id}-port,hubid=0,netdev=${id}`]),
    ...[...qmp(own), ...endWithParent, ...sandbox],
  ]
}

/**
 * Starts the programs that are given as a count of words, a file that shows that the program is ready, and the words;
 * then becomes the one behind the 0. A switch ends where nobody can type to it: it has a pipe to itself. Bochs' screen,
 * which it draws, is of no use.
 */
const startScript = `umask 077
cd "$1" || exit 1
shift
exec > /dev/null
mkfifo never || exit 1
first() {
  n=$1; shift
  others=$(($# - n))
  while [ $n -gt 0 ]; do set -- "$@" "$1"; shift; n=$((n - 1)); done
  shift $others
  exec "$@" <> never
}
while count=$1; shift; [ $count -gt 0 ]; do
  made=$1; shift
  first $count "$@" &
  shift $count
  n=0
  until [ -e "$made" ]; do
    kill -0 $! 2> /dev/null && [ $n -lt 200 ] || exit 1
    n=$((n + 1)); sleep 0.05 2> /dev/null || sleep 1
  done
done
exec "$@"`
