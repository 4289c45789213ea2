// The nodes of a cluster, as this one sees them, and the state of the broker that they share.

import { byId, count, duration, element, keepRows, say, visible } from './parts.js';

/// Each column: its name, its text, and what it means.
const COLUMNS = [
  { name: 'Node', show: (node) => visible(node.name) + (node.this ? ' (this one)' : '') },
  { name: 'Clients', show: (node) => count(node.clients), title: 'A stream of several channels counts once for each' },
  { name: 'Channels', show: (node) => count(node.channels) },
  { name: 'Behind', show: (node, newest) => count(Math.max(0, newest - node.applied)), title: 'Numbers of the log that the node had not applied yet when it reported' },
  { name: 'Report', show: (node) => `${(node.age_ms / 1000).toFixed(1)} s ago`, title: 'Nodes report each second' },
  { name: 'Version', show: (node) => visible(node.version) },
  { name: 'State', show: (node) => [node.draining && 'draining', node.other_options && 'other options'].filter(Boolean).join(', ') || 'ok' },
];

export class ClusterPanel {
  constructor() {
    const heads = COLUMNS.map(({ name, title }) => element('th', { text: name, scope: 'col', title }));
    byId('node-table').tHead.rows[0].append(...heads);
  }

  /// Shows the cluster of the statistics, if the server is a node of one.
  take(cluster) {
    byId('cluster').hidden = !cluster;
    if (!cluster) return;
    say(byId('broker-state'), state(cluster));
    byId('broker-state').classList.toggle('error', !cluster.connected || Boolean(cluster.stopped));
    const newest = Math.max(...cluster.nodes.map((node) => node.applied));
    keepRows(byId('node-table').tBodies[0], cluster.nodes, {
      key: (node) => node.id,
      make: () => element('tr', {}, ...COLUMNS.map(() => element('td'))),
      update: (row, node) => COLUMNS.forEach(({ show }, i) => say(row.cells[i], show(node, newest))),
    });
  }
}

function state({ broker, connected, disconnected_s, error, stopped, lag_ms, queued }) {
  if (stopped) return `This node follows the log no longer: ${stopped}. Start it again.`;
  if (!connected) {
    const time = disconnected_s === undefined ? '' : ` for ${duration(disconnected_s)}`;
    return `No connection to ${broker}${time}${error ? ` (${error})` : ''}. ${count(queued)} changes wait.`;
  }
  return `Connected to ${broker}. An event takes ${lag_ms.toFixed(1)} ms from this node and back.`;
}
