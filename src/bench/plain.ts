import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import type { Bundle } from '../bundle/bundle.ts'
import { cpio, file } from '../bundle/cpio.ts'
import { makeSquashfs } from '../bundle/guest/layer.ts'
import { counterKhz } from '../host/clock.ts'
import { timeLimit } from '../machine/limit.ts'
import type { Machine, Process } from '../machine/machine.ts'
import type { Context } from '../stack/context.ts'
import type { LevelPlan } from '../stack/plan.ts'
import { NestvmError } from '../store/error.ts'
import { firstOutput, type RecipeFiles, recipeArguments, recipeInit } from './recipe.ts'

export interface PlainStack {
  /** The outermost level's QEMU command; it starts the others. */
  argv: string[]
  limitMs: number
}

/** Makes the files of the plain recipe for these levels, in `dir`. */
export async function preparePlain(
  { host, signal }: Context,
  bundle: Bundle,
  levels: readonly LevelPlan[],
  dir: string,
): Promise<PlainStack> {
  const [outermost] = levels
  if (!outermost) throw new RangeError('a stack has at least one level')
  const boot = join(dir, 'boot')
  const files: RecipeFiles = {
    vmlinuz: join(boot, 'vmlinuz'),
    initrd: join(boot, 'initrd.gz'),
    disks: [bundle.guest.hypervisorLayer, join(dir, 'boot.squashfs')],
  }
  await mkdir(boot, { recursive: true })
  await copyFile(bundle.guest.vmlinuz, files.vmlinuz)
  await writeFile(files.initrd, await recipeInitrd(bundle, levels))
  if (outermost.nested) await makeSquashfs(host, bundle.tools, { from: boot, to: files.disks[1], signal })
  const argv = [...bundle.tools.qemuArgv(), ...recipeArguments(outermost, files, await counterKhz(host))]
  return { argv, limitMs: 3 * levels.reduce((sum, { limitMs }) => sum + limitMs, 0) }
}

/**
 * Of two archives with the same path the later one counts: the base has a link in the place of the start script.
 * The modules for PCI come with those for containers, which only a hypervisor, that has disks, is made to carry.
 */
async function recipeInitrd(bundle: Bundle, levels: readonly LevelPlan[]): Promise<Buffer> {
  const { baseInitrd, containerInitrd } = bundle.guest
  const archives = levels.length > 1 ? [baseInitrd, containerInitrd] : [baseInitrd]
  const base = Buffer.concat(await Promise.all(archives.map((path) => readFile(path))))
  const init = cpio([file('init', recipeInit(bundle, levels), 0o755)])
  return promisify(gzip)(Buffer.concat([base, init]))
}

/**
 * Milliseconds from the start of the outermost QEMU to the innermost guest's first output. Ends all of it.
 * Throws `BENCH_FAILED`, `TIMEOUT` or the signal's reason.
 */
export async function timePlain(machine: Machine, { argv, limitMs }: PlainStack, signal: AbortSignal): Promise<number> {
  const limit = timeLimit(limitMs)
  const begun = performance.now()
  // However this process ends, QEMU ends too.
  const guarded = [...argv, '-run-with', 'exit-with-parent=on']
  const qemu = await machine.spawn(guarded, { signal: AbortSignal.any([signal, limit]) })
  try {
    return (await said(qemu, firstOutput)) - begun
  } catch (error) {
    signal.throwIfAborted()
    if (!limit.aborted) throw error
    const what = `the plain recipe gave no output within ${limitMs / 1000} s`
    throw new NestvmError('TIMEOUT', what, { cause: error, exitStatus: 124 })
  } finally {
    qemu.kill('SIGKILL')
    await qemu.exited
  }
}

/** When, on the clock of performance.now(), the program had written the words. */
function said(program: Process, words: string): Promise<number> {
  return new Promise((resolve, reject) => {
    let stdout = ''
    let stderr = ''
    program.stdout.on('data', (chunk: Buffer) => {
      stdout = (stdout + chunk).slice(-4000)
      if (stdout.includes(words)) resolve(performance.now())
    })
    program.stderr.on('data', (chunk: Buffer) => {
      stderr = (stderr + chunk).slice(-2000)
    })
    program.exited.then(() => {
      const console = `${stderr}${stdout}`.replaceAll('\r', '').trim()
      const lines = console.replace(/^/gm, '  | ')
      reject(
        new NestvmError('BENCH_FAILED', `the plain recipe ended without output; the end of its console:\n${lines}`, {
          details: { console },
        }),
      )
    }, reject)
  })
}
