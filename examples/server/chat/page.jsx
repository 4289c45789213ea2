// The page of the chat. Its address names the chat, so a reload continues it.

import { useChat } from '@ai-sdk/react';
import { DefaultChatTransport } from 'ai';
import { useState } from 'react';
import { createRoot } from 'react-dom/client';

function Chat({ id, initial }) {
  const [text, setText] = useState('');
  const { messages, sendMessage, status } = useChat({
    id,
    messages: initial,
    // Asks for /api/chat/{id}/stream when the page opens.
    resume: true,
    transport: new DefaultChatTransport({ api: '/api/chat' }),
  });
  const isWriting = status === 'submitted' || status === 'streaming';
  const ask = (event) => {
    event.preventDefault();
    sendMessage({ text });
    setText('');
  };
  // Closing the stream would not stop the answer, which other tabs may read.
  const stop = () => fetch(`/api/chat/${id}/stop`, { method: 'POST' });
  return (
    <>
      {messages.map(({ id, role, parts }) => (
        <p key={id} className={role}>
          {parts.map((part) => (part.type === 'text' ? part.text : ''))}
        </p>
      ))}
      <form onSubmit={ask}>
        <input value={text} onChange={(event) => setText(event.target.value)} required aria-label="Message" />
        <button disabled={isWriting}>Send</button>
        <button type="button" disabled={!isWriting} onClick={stop}>Stop</button>
      </form>
      <p id="state" data-state={status} role="status"></p>
    </>
  );
}

if (!location.hash) location.hash = crypto.randomUUID();
const id = location.hash.slice(1);
const initial = await (await fetch(`/api/chat/${id}/messages`)).json();
createRoot(document.getElementById('chat')).render(<Chat id={id} initial={initial} />);
