import { join } from 'node:path'
import { cachePaths } from '../store/paths.ts'
import { removeLeftovers, removeTree, temporaryName } from '../store/write.ts'

/** The name of a directory for one benchmark, which is removed at its end; so is what killed benchmarks have left. */
export async function benchDirectory(): Promise<AsyncDisposable & { path: string }> {
  await removeLeftovers(cachePaths().dir)
  const path = temporaryName(join(cachePaths().dir, 'bench'))
  return { path, [Symbol.asyncDispose]: () => removeTree(path) }
}
