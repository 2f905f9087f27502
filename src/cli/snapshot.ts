import { Command } from 'commander'
import type { ListedSnapshot } from '../snapshot/record.ts'
import { printJson, session } from './session.ts'
import { age, table } from './table.ts'

export function snapshotCommand(): Command {
  return new Command('snapshot')
    .description('Saved machines: make, list and remove them.')
    .addCommand(createCommand())
    .addCommand(listCommand())
    .addCommand(removeCommand())
}

function createCommand(): Command {
  return new Command('create')
    .description('Save a running level 1 guest with all that runs in it; it runs on.')
    .argument('<machine>', 'its path')
    .option('--tag <name>', 'a name for the snapshot')
    .option('--force', 'also where it is not known that nested guests survive')
    .option('--json', 'print JSON')
    .action((machine: string, options: { tag?: string; force?: boolean; json?: boolean }) =>
      session(options.json === true, async (own) => {
        const { bundleOn, theBundle } = await import('./bundle.ts')
        const { createSnapshot } = await import('../snapshot/create.ts')
        const { findListed } = await import('../snapshot/record.ts')
        const { showStep } = await import('./progress.ts')
        const { runningRecord } = await import('../stack/record.ts')
        const { arch, kernel } = await runningRecord(machine)
        const bundle = await bundleOn(own, await theBundle(own, { arch, kernel }))
        const request = { machine, tag: options.tag, force: options.force === true, onStep: showStep }
        const { id } = await createSnapshot(own.context, bundle, request).finally(() => showStep(''))
        if (options.json) printJson(forJson(await findListed(id)))
        else console.log(options.tag ?? id.slice(0, 12))
        return 0
      }),
    )
}

function listCommand(): Command {
  return new Command('ls')
    .description('List snapshots, the one used last first.')
    .option('--json', 'print JSON')
    .action((options: { json?: boolean }) =>
      session(options.json === true, async () => {
        const { listSnapshots } = await import('../snapshot/record.ts')
        const snapshots = await listSnapshots()
        if (options.json) printJson(snapshots.map(forJson))
        else if (snapshots.length > 0) await print(snapshots)
        return 0
      }),
    )
}

async function print(snapshots: readonly ListedSnapshot[]): Promise<void> {
  const { megabytes } = await import('./progress.ts')
  const rows = snapshots.map(({ id, snapshot, damage, bytes, usedAt }) => [
    id.slice(0, 12),
    snapshot?.tag ?? (snapshot?.automatic ? '(automatic)' : ''),
    snapshot?.machine ?? '',
    snapshot ? `L${Math.max(...snapshot.guests.map(({ level }) => level))}` : '',
    megabytes(bytes),
    snapshot ? age(snapshot.createdAt) : '',
    age(usedAt.toISOString()),
    damage ?? '',
  ])
  console.log(table([['SNAPSHOT', 'TAG', 'MACHINE', 'LEVELS', 'SIZE', 'AGE', 'USED', ''], ...rows]))
}

function forJson({ id, snapshot, damage, bytes, usedAt }: ListedSnapshot) {
  const { tag, automatic, machine, createdAt, world, guests = [] } = snapshot ?? {}
  const levels = guests.map(({ path, level, accel, cpus, memoryMiB, nested, container }) => {
    return { machine: path, level, accel, cpus, memoryMiB, nested, image: container?.reference }
  })
  return { snapshot: id, tag, automatic, machine, createdAt, usedAt, bytes, damage, world, levels }
}

function removeCommand(): Command {
  return new Command('rm')
    .description('Remove snapshots; machines that were made from them run on.')
    .argument('<snapshot...>', 'tags, or beginnings of ids')
    .action((names: string[]) =>
      session(false, async () => {
        const { findListed, removeSnapshot } = await import('../snapshot/record.ts')
        const { megabytes } = await import('./progress.ts')
        const found = await Promise.all(names.map(findListed))
        for (const snapshot of found) await removeSnapshot(snapshot)
        console.log(`removed ${megabytes(found.reduce((sum, { bytes }) => sum + bytes, 0))}`)
        return 0
      }),
    )
}
