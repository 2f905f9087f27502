import { bundleReport, pruneBundles, removeBundles } from '../bundle/report.ts'
import { NestvmError } from '../store/error.ts'
import type { Context } from './context.ts'
import { listMachines } from './list.ts'
import { isCurrent } from './record.ts'
import { destroy } from './stop.ts'

/** Removes ended machines and bundles that are not current; with `all`, every bundle. Throws `STILL_RUNNING`. */
export async function prune(context: Context, all: boolean): Promise<{ machines: number; bytes: number }> {
  const machines = await listMachines(context)
  const running = machines.filter(({ phase }) => phase === 'running' || phase === 'starting')
  const [first] = running
  if (all && first) {
    throw new NestvmError('STILL_RUNNING', `machines run from the bundle, ${first.path} among them`, {
      hint: `nestvm stop ${running
        .filter(({ level }) => level === 1)
        .map(({ path }) => path)
        .join(' ')}`,
    })
  }
  const ended = machines.filter(({ phase }) => phase === 'exited' || phase === 'dead')
  for (const { phase: _, health: __, pssBytes: ___, ...found } of ended) {
    context.signal.throwIfAborted()
    const record = { ...found, phase: 'exited' as const }
    if (await isCurrent(record)) await destroy(context, record)
  }
  const before = (await bundleReport()).totalBytes
  await (all ? removeBundles() : running.length === 0 ? pruneBundles() : undefined)
  return { machines: ended.length, bytes: before - (await bundleReport()).totalBytes }
}
