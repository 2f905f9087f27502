import { timeLimit } from '../machine/limit.ts'
import type { Machine } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'

/** Where a guest notes the hypervisors that are stopped in it. */
const note = '/run/nestvm/frozen'

/** Lets them run on, for a guest that was saved with them stopped. In any other it starts no program. */
export const thawScript = `[ ! -e ${note} ] || { read -r pids < ${note}; kill -CONT $pids; rm -f ${note}; }\n`

/** Lets them run on in a guest that was moved with them stopped. */
export async function thawNested(guest: Machine, timeoutMs: number): Promise<void> {
  await run(guest, ['sh', '-c', thawScript], { timeoutMs })
}

/** Whether a guest can be stopped only once the hypervisors in it are. */
export function mustFreeze({ accel, nested }: { accel: string; nested: boolean }): boolean {
  return accel === 'tcg' && nested
}

/** They run on when they are told to, when nobody is there any more to do so, and after half a minute in any case. */
const freezeScript = `pids=$(ls -l /proc/[0-9]*/fd 2> /dev/null |
  awk -F/ '/^\\/proc/ { pid = $3 } /anon_inode:kvm-vm$/ { print pid }' | sort -u | tr '\\n' ' ')
[ "$pids" ] && { echo $pids > ${note}; kill -STOP $pids; }
for pid in $pids; do
  n=0; until ! grep -qs '^State:.[^T]' /proc/$pid/task/*/status; do
    n=$((n + 1)); [ $n -lt 2000 ] || { ${thawScript}exit 1; }
    usleep 5000
  done
done
echo frozen
read -r -t 30 x
${thawScript}`

/**
 * Stops whatever runs guests in an emulated guest: every process that has a virtual machine of KVM's. Once they have
 * stopped, no processor of the guest is in the midst of a nested guest, where it must not be stopped for two reasons:
 * QEMU does not load it again, as it misses the nested state of KVM's, which no emulator has (cpu_post_load in its
 * target/i386/machine.c); and a processor that is asked to stop between an interrupt that VMRUN has injected and the
 * next exit takes that interrupt once more, which now and then ends the nested guest (helper_vmrun in
 * target/i386/tcg/system/svm_helper.c leaves exception_index behind).
 * What it returns lets them run on. Throws `SAVE_FAILED`.
 * The signal does not kill the script: with it would go what lets them run on.
 */
export async function freezeNested(guest: Machine, timeoutMs: number, signal: AbortSignal): Promise<AsyncDisposable> {
  signal.throwIfAborted()
  const limit = AbortSignal.any([signal, timeLimit(timeoutMs)])
  const process = await guest.spawn(['sh', '-c', freezeScript])
  const over = process.exited.catch(() => {})
  let said = ''
  process.stderr.resume()
  const frozen = new Promise<void>((resolve, reject) => {
    const fail = () =>
      reject(new NestvmError('SAVE_FAILED', `the hypervisors in ${guest.name} could not be stopped: ${said.trim()}`))
    process.stdout.on('data', (chunk: Buffer) => {
      said += chunk
      if (said.endsWith('frozen\n')) resolve()
    })
    process.exited.then(fail, fail)
    limit.addEventListener('abort', fail, { once: true })
    if (limit.aborted) fail()
  })
  const thaw = async () => {
    process.stdin.end('\n')
    await over
  }
  try {
    await frozen
    return { [Symbol.asyncDispose]: thaw }
  } catch (error) {
    await thaw()
    throw error
  }
}
